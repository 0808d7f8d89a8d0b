const char *bypath() { return __FILE__; }
