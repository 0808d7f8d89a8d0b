/* A Python module that finds its own device code as CUDA's runtime does: through the wrappers. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

struct wrapper {
    uint32_t magic;
    uint32_t version;
    const unsigned char *container;
    const void *unused;
};

/* Of fatbins.s: one address of a wrapper per unit, then a null pointer. */
extern const struct wrapper *const units[];

static PyObject *containers(PyObject *self, PyObject *unused) {
    PyObject *found = PyList_New(0);
    (void)self;
    (void)unused;
    for (int i = 0; found && units[i]; i++) {
        const unsigned char *container = units[i]->container;
        uint64_t size;
        PyObject *bytes;
        if (units[i]->magic != 0x466243B1 || *(const uint32_t *)container != 0xBA55ED50)
            return PyErr_Format(PyExc_ValueError, "unit %d: no wrapper, or no container", i);
        size = *(const uint64_t *)(container + 8);
        bytes = PyBytes_FromStringAndSize((const char *)container, 16 + (Py_ssize_t)size);
        if (!bytes || PyList_Append(found, bytes)) return NULL;
        Py_DECREF(bytes);
    }
    return found;
}

static PyMethodDef methods[] = {
    {"containers", containers, METH_NOARGS, "The fatbin container of each unit, as bytes."},
    {0},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_size = -1, .m_methods = methods};

/* MODULE: the module's name, on the command line. */
#define JOIN(a, b) a##b
#define INIT(name) JOIN(PyInit_, name)
#define TEXT(name) #name
#define NAME(name) TEXT(name)

PyMODINIT_FUNC INIT(MODULE)(void) {
    module.m_name = NAME(MODULE);
    return PyModule_Create(&module);
}
