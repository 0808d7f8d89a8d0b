/* A Windows program that does what standin.py, beside it, does on the machine that Wine runs on.
 * Wine starts its host's programs but does not wait for them: so this waits for a file. */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

static char *(CDECL *host_name)(const WCHAR *);

static void put(FILE *file, const char *text) {
    fputs(text, file);
    fputc(0, file);
}

static void put_wide(FILE *file, const WCHAR *text) {
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, 0, 0, 0, 0);
    char *narrow = malloc(size);
    WideCharToMultiByte(CP_UTF8, 0, text, -1, narrow, size, 0, 0);
    put(file, narrow);
}

static void copy(const char *name, DWORD stream) {
    FILE *file = fopen(name, "rb");
    char buffer[65536];
    size_t count;
    DWORD done;
    while (file && (count = fread(buffer, 1, sizeof buffer, file)))
        WriteFile(GetStdHandle(stream), buffer, count, &done, 0);
    if (file) fclose(file);
    remove(name);
}

int wmain(int count, WCHAR **words) {
    WCHAR self[4096], folder[4096], cwd[4096], temp[4096];
    host_name = (void *)GetProcAddress(GetModuleHandleA("kernel32"), "wine_get_unix_file_name");
    GetModuleFileNameW(0, self, 4096);
    GetCurrentDirectoryW(4096, cwd);
    if (!GetEnvironmentVariableW(L"TEMP", 0, 0)) {
        fputs("without TEMP, Microsoft's compiler would write into C:\\Windows\n", stderr);
        return 97;
    }
    GetTempPathW(4096, temp);
    swprintf(folder, 4096, L"%lsstandin%lu-%lu", temp, GetCurrentProcessId(), GetTickCount());
    CreateDirectoryW(folder, 0);
    char *here = host_name(folder), *program = host_name(self), *place = host_name(cwd);
    SetCurrentDirectoryW(folder);
    FILE *call = fopen("call", "wb");
    put(call, program);
    put(call, place);
    for (int index = 1; index < count; index++) put_wide(call, words[index]);
    fclose(call);
    *strrchr(program, '/') = 0;
    char command[16384];
    snprintf(command, sizeof command,
             "/bin/sh -c \"cd '%s'; python3 -I '%s/standin.py' > out 2> err; echo $? > code; "
             "mv code done\"",
             here, program);
    STARTUPINFOA start = {sizeof start};
    PROCESS_INFORMATION made;
    if (!CreateProcessA("Z:\\bin\\sh", command, 0, 0, 0, 0, 0, 0, &start, &made)) return 99;
    FILE *done;
    while (!(done = fopen("done", "r"))) Sleep(2);
    int code = 98;
    fscanf(done, "%d", &code);
    fclose(done);
    copy("out", STD_OUTPUT_HANDLE);
    copy("err", STD_ERROR_HANDLE);
    remove("call");
    remove("done");
    SetCurrentDirectoryW(temp);
    RemoveDirectoryW(folder);
    return code;
}
