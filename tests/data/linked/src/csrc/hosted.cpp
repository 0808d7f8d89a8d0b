#define SPELLED(...) #__VA_ARGS__
#define SPELL(...) SPELLED(__VA_ARGS__)

extern "C" const char *hosted_archs() { return "hosted for " SPELL(__CUDA_ARCH_LIST__); }
