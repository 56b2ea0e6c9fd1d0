/* A shard's part of rooms, without a shard: clients, channels, and rooms of messages that say their number. */
#ifndef ROOMS_H
#define ROOMS_H

#include "channel.h"
#include "client.h"
#include "extra.h"
#include "message.h"
#include "room.h"

extern struct fc_account rooms_account;
extern struct fc_channels rooms_channels;
extern struct fc_clients rooms_clients;

void rooms_open(uint32_t max_clients);

/* All rooms must be freed. Nothing is left: no client's extra, no channel, no message. */
void rooms_close(void);

/* A room of the channel, which is made if there is none. */
struct fc_room *rooms_make(const char *name);

/* The room of the clients that are open. */
struct fc_room *rooms_make_everyone(void);

/* Checks what weight it had left. */
void rooms_free(struct fc_room *room, size_t weight);

/* A client that's open. Returns its slot. */
uint32_t rooms_client(void);
struct fc_client *rooms_at(uint32_t slot);

/* It must have left its rooms. */
void rooms_forget_client(uint32_t slot);

void rooms_join(struct fc_room *room, uint32_t slot);
void rooms_leave(struct fc_room *room, uint32_t slot);
bool rooms_is_member(struct fc_room *room, uint32_t slot);

/* A binary message with its number, and `size` bytes at the least. */
struct fc_message *rooms_message(uint32_t number, size_t size);

/* Adds the message with the room's next number. Returns its weight. */
size_t rooms_add(struct fc_room *room, size_t size, bool picky);

/* Reads the number of the frame at the bytes; returns where the next one begins. */
const uint8_t *rooms_read(const uint8_t *wire, uint32_t *number);

/* Positions, holes and the late are as they must be. */
void rooms_check(struct fc_room *room);

#endif
