/* A driver that has what its environment says, for the faults that a machine without a card can't have otherwise. */
#include <stdlib.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuDriverGetVersion(int *version) { return *version = number("DRIVER_VERSION", 13000), 0; }
int cuInit(unsigned flags) { return number("DRIVER_INIT", 0); }
int cuDeviceGetCount(int *count) { return *count = number("DRIVER_CARDS", 1), 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
/* Compute capability: 75 is its major number, 76 its minor one. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = number("DRIVER_CAPABILITY", 90);
    return *value = attribute == 75 ? capability / 10 : capability % 10, 0;
}
int cuGetErrorName(int error, const char **name) { return *name = "CUDA_ERROR_NO_DEVICE", 0; }
int cuGetErrorString(int error, const char **text) { return *text = "no such driver", 0; }
