void run_scaled(float *p);
extern "C" void scale(float *p) { run_scaled(p); }
