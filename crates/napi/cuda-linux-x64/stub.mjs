// A driver library for machines without one: to link against (an empty one would be dropped by the linker), and to
// load the addon in tests. What it says of itself can be set: FAKE_DRIVER (13000 is CUDA 13.0), FAKE_DEVICES (their
// number), FAKE_CAPABILITY (80 is 8.0), FAKE_NAME.

/** Functions that answer; all others say that there is no device. */
const ANSWERS = `
#include <stdlib.h>
#include <string.h>
static int set(const char *name, int otherwise) { const char *text = getenv(name); return text ? atoi(text) : otherwise; }
int cuDriverGetVersion(int *version) { *version = set("FAKE_DRIVER", 13000); return 0; }
int cuInit(unsigned flags) { (void)flags; return set("FAKE_DEVICES", 0) ? 0 : 100; }
int cuDeviceGetCount(int *count) { *count = set("FAKE_DEVICES", 0); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal < set("FAKE_DEVICES", 0) ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  const char *text = getenv("FAKE_NAME");
  strncpy(name, text ? text : "fake", length);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { /* 75, 76: compute capability, major and minor */
  (void)device;
  int capability = set("FAKE_CAPABILITY", 80);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
  return 0;
}
int cuGetErrorName(int code, const char **text) { *text = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR"; return 0; }
int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }
`

/** C: the functions above and, of the text of cuda.h, every other one. */
export function stubSource(header = '') {
  const answered = new Set([...ANSWERS.matchAll(/^int (cu\w+)\(/gm)].map((match) => match[1]))
  const declared = [...header.matchAll(/\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(/g)].map((match) => match[1])
  const renamed = [...header.matchAll(/^\s*#define\s+cu[A-Z]\w*\s+(?:__CUDA_API_PT\w+\()?(cu[A-Z]\w*)/gm)].map((match) => match[1])
  const names = [...new Set([...declared, ...renamed])].filter((name) => !answered.has(name))
  return ANSWERS + names.map((name) => `int ${name}(void) { return 100; }\n`).join('')
}
