#pragma once
#include <crtdefs.h>
#ifdef __cplusplus
extern "C" {
double _j0(double);
double _j1(double);
double _jn(int, double);
double _y0(double);
double _y1(double);
double _yn(int, double);
double _hypot(double, double);
float _hypotf(float, float);
}
extern "C++" {
template <class T> inline int fpclassify(T) throw() { return 0; }
template <class T> inline bool isfinite(T x) throw() { return x - x == x - x; }
template <class T> inline bool isinf(T x) throw() { return x != 0 && x == x + x; }
template <class T> inline bool isnan(T x) throw() { return x != x; }
template <class T> inline bool isnormal(T x) throw() { return x == x; }
template <class T> inline bool signbit(T x) throw() { return x < 0; }
}
#endif
