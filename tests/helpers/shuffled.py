"""A library that gives the files of folders in another order than the file system's own.

Loaded by LD_PRELOAD into a program and all that it starts: it reads a folder to its end when the
program asks for the first entry, and gives the entries by a hash of their names and of the variable
SHUFFLE.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* On x86-64 Linux dirent and dirent64 are one. */
struct listing {
    DIR *of;
    struct dirent *entries;
    size_t count, next;
    struct listing *others;
};

static struct listing *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long hash(const char *name) {
    const char *seed = getenv("SHUFFLE");
    unsigned long found = 14695981039346656037UL;
    for (seed = seed ? seed : ""; *seed; seed++) found = (found ^ *seed) * 1099511628211UL;
    for (; *name; name++) found = (found ^ (unsigned char)*name) * 1099511628211UL;
    return found ^ (found >> 29);
}

static int by_hash(const void *one, const void *other) {
    unsigned long a = hash(((const struct dirent *)one)->d_name);
    unsigned long b = hash(((const struct dirent *)other)->d_name);
    return a < b ? -1 : a > b;
}

static struct listing *listing_of(DIR *folder) {
    for (struct listing *found = all; found; found = found->others)
        if (found->of == folder) return found;
    return NULL;
}

static void forget(DIR *folder) {
    for (struct listing **at = &all; *at; at = &(*at)->others)
        if ((*at)->of == folder) {
            struct listing *gone = *at;
            *at = gone->others;
            free(gone->entries);
            free(gone);
            return;
        }
}

struct dirent *readdir(DIR *folder) {
    static struct dirent *(*real)(DIR *);
    struct dirent *entry = NULL;
    pthread_mutex_lock(&lock);
    if (!real) real = (struct dirent *(*)(DIR *))dlsym(RTLD_NEXT, "readdir");
    struct listing *found = listing_of(folder);
    if (!found) {
        found = calloc(1, sizeof *found);
        found->of = folder;
        while ((entry = real(folder))) {
            found->entries = realloc(found->entries, (found->count + 1) * sizeof *entry);
            memset(&found->entries[found->count], 0, sizeof *entry);
            memcpy(&found->entries[found->count++], entry, entry->d_reclen);
        }
        qsort(found->entries, found->count, sizeof *found->entries, by_hash);
        found->others = all;
        all = found;
    }
    entry = found->next < found->count ? &found->entries[found->next++] : NULL;
    pthread_mutex_unlock(&lock);
    return entry;
}

struct dirent64 *readdir64(DIR *folder) { return (struct dirent64 *)readdir(folder); }

int closedir(DIR *folder) {
    static int (*real)(DIR *);
    pthread_mutex_lock(&lock);
    if (!real) real = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    forget(folder);
    pthread_mutex_unlock(&lock);
    return real(folder);
}

void rewinddir(DIR *folder) {
    static void (*real)(DIR *);
    pthread_mutex_lock(&lock);
    if (!real) real = (void (*)(DIR *))dlsym(RTLD_NEXT, "rewinddir");
    forget(folder);
    pthread_mutex_unlock(&lock);
    real(folder);
}
"""


def shuffling(gcc: str, folder: Path) -> Path:
    """The library, compiled into `folder`."""
    source, library = folder / "shuffle.c", folder / "shuffle.so"
    source.write_text(SOURCE)
    subprocess.run(
        [gcc, "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl", "-pthread"],
        check=True,
    )
    return library
