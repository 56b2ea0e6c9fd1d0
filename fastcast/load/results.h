/*
 * results.h - what the workers of a run found, added up into its report.
 */
#ifndef FC_RESULTS_H
#define FC_RESULTS_H

#include "conductor.h"

/* The workers have been joined. */
void fc_results_add_up(struct fc_conductor *conductor);

#endif
