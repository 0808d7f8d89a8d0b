#pragma once
#include <crtdefs.h>
extern "C" {
__declspec(noreturn) void __cdecl exit(int);
unsigned short _byteswap_ushort(unsigned short);
unsigned long _byteswap_ulong(unsigned long);
unsigned long long _byteswap_uint64(unsigned long long);
}
