/* No more of Microsoft's headers than CUDA's own headers need to be read. */
#pragma once
#define _CRTIMP
#define _ACRTIMP
#define __CRTDECL __cdecl
typedef unsigned long long size_t;
typedef long long ptrdiff_t;
typedef long long intptr_t;
typedef unsigned long long uintptr_t;
typedef long long time_t;
typedef long clock_t;
#ifndef NULL
#define NULL 0
#endif
