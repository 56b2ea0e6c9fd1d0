/* Where a client connects from. */
#ifndef FC_REMOTE_H
#define FC_REMOTE_H

#include "client.h"

#define FC_REMOTE_MAX 64

/* The other side's address as text, empty if it can't be told, and its port. */
void fc_remote_of(const struct fc_client *client, char text[FC_REMOTE_MAX], uint16_t *port);

#endif
