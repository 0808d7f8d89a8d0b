#define TIMES(x) ((x) * FACTOR)
