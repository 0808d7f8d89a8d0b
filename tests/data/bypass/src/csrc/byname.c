int byname(void) { return 1; }
