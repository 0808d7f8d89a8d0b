#if __cplusplus < 202002L
#error C++20
#endif
int unused;
