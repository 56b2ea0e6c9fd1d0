/*
 * plan.h - what the options of a run amount to: whether they make sense, how many threads, how many
 * connections churn.
 */
#ifndef FC_PLAN_H
#define FC_PLAN_H

#include "load.h"

/* CLOSE_RANGE_UNSHARE, for C libraries that do not know it. */
#define FC_PLAN_UNSHARE 2u

/* One line that says what is wrong with the options; NULL when nothing is. */
const char *fc_plan_contradiction(const struct fc_load_options *options);

/* How many connections fit into one descriptor table of the present limit, and how many places of it are
 * kept for everything else. */
uint32_t fc_plan_table(void);
uint32_t fc_plan_table_reserve(void);

/* As many as asked for, else two, or as many as descriptor tables of the present limit are needed. */
uint32_t fc_plan_threads(const struct fc_load_options *options);

/* Enough that each comes round about once a second, but no sender and not more than half of the others. */
uint32_t fc_plan_churners(const struct fc_load_options *options);

/* How many senders' messages are expected: this run's and those of other processes. */
uint32_t fc_plan_senders(const struct fc_load_options *options);

/* How long nothing may be delivered before the message phase is stuck, in seconds. */
double fc_plan_patience(const struct fc_load_options *options);

#endif
