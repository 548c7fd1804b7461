/* The two forms in which `status` shows the daemon's snapshot besides JSON itself. */
#ifndef CMD_STATUS_H
#define CMD_STATUS_H

#include "base/reason.h"

#include <jansson.h>
#include <stdint.h>

/* Of a member that is there and is a number, a text or true; else 0, "" or false. */
uint64_t status_number(const json_t *object, const char *key);
const char *status_string(const json_t *object, const char *key);
int status_flag(const json_t *object, const char *key);

/* Of an object that counts decisions by reason, those of one outcome. */
uint64_t status_outcome(const json_t *decisions, enum outcome outcome);

/* For people. The snapshot comes from another process: its texts do not steer the terminal. */
void status_print_text(const json_t *root);

/* Prometheus' text format, 0.0.4. */
void status_print_metrics(const json_t *root);

#endif
