/*
 * plan.h - what the options of a run amount to: whether they make sense, how many threads, how many
 * connections churn.
 */
#ifndef FC_PLAN_H
#define FC_PLAN_H

#include "load.h"

/* One line that says what is wrong with the options; NULL when nothing is. */
const char *fc_plan_contradiction(const struct fc_load_options *options);

/* As many as asked for, else two, or as many as descriptor tables of the present limit are needed. */
uint32_t fc_plan_threads(const struct fc_load_options *options);

/* Enough that each comes round about once a second, but no sender and not more than half of the others. */
uint32_t fc_plan_churners(const struct fc_load_options *options);

#endif
