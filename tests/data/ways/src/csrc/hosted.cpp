int hosted() { return 1; }
