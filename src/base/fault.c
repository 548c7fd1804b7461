#include "base/fault.h"

#include <stdarg.h>
#include <stdio.h>

int fault_set(struct fault *f, const char *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)snprintf(f->where, sizeof f->where, "%s", where);
    (void)vsnprintf(f->what, sizeof f->what, format, args);
    va_end(args);
    return -1;
}
