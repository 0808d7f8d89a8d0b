// An extension module by hand: Python.h needs more of a C library than is here.
extern "C" void run_scale(float *, int);
void run_shift(int *);

#if NUMBER_799_OF_MANY_MACROS_THAT_SAY_NOTHING != 799
#error "a long command lost its end"
#endif

struct Definition {
    long long references;
    void *type;
    void *start;
    long long index;
    void *copy;
    const char *name;
    const char *doc;
    long long size;
    void *rest[5];
};
static Definition definition = {1, 0, 0, 0, 0, "_C", GREETING, 0, {}};

extern "C" __declspec(dllimport) void *PyModuleDef_Init(Definition *);
extern "C" __declspec(dllexport) void *PyInit__C() { return PyModuleDef_Init(&definition); }

extern "C" __declspec(dllexport) void run(float *data, int *numbers) {
    run_scale(data, 1);
    run_shift(numbers);
}
