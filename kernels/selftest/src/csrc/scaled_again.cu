// The same text as scaled.cu under another name and factor, linked into the same library.

#undef SELFTEST_FACTOR
#define SELFTEST_FACTOR 5.0f
#define SELFTEST_NAME scaled_again
#include "scaled.cu"
