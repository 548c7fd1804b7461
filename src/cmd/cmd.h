/* The subcommands: argv[0] is the subcommand's own word; each returns the exit status. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

int cmd_serve(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_audit(int argc, char **argv);

/* $SPNEGATE_CONFIG, or the built-in path. */
const char *cmd_config_default(void);

/*
 * The options of a subcommand that takes a configuration: -c FILE, --config=FILE, -h, --help.
 * Returns -1 to go on with `*config`, or the exit status: help was shown, or the usage was wrong
 * (and said so).
 */
int cmd_options(int argc, char **argv, void (*print_help)(void), const char **config);

#endif
