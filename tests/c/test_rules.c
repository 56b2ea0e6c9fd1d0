/* Which rule is for which channel: the first that takes in its name, and the last for all others. */
#include "rules.h"

#include "check.h"

#include <stdio.h>
#include <string.h>

static uint8_t find(const struct fc_rule *rules, unsigned count, const char *name)
{
    return fc_rules_find(rules, count, name, strlen(name));
}

static void the_first_rule_that_takes_in_a_name_is_its_rule(void)
{
    static const struct fc_rule rules[] = {
        {.channels = {"prices.eur", 10}}, {.channels = {"prices.*", 8}}, {.channels = {"prices.>", 8}},
        {.channels = {"*.eur", 5}},       {.channels = {">", 1}},
    };

    CHECK_EQ(find(rules, 5, "prices.eur"), 0);
    CHECK_EQ(find(rules, 5, "prices.usd"), 1);
    CHECK_EQ(find(rules, 5, "prices.usd.fine"), 2);
    CHECK_EQ(find(rules, 5, "rates.eur"), 3);
    CHECK_EQ(find(rules, 5, "prices"), 4);
    CHECK_EQ(find(rules, 5, "prices.eu"), 1);
    CHECK_EQ(find(rules, 5, "/chat"), 4);
    CHECK_EQ(find(rules, 5, ""), 4);
}

static void the_last_rule_is_for_all_others_whatever_its_pattern(void)
{
    static const struct fc_rule rules[] = {{.channels = {"a", 1}}, {.channels = {"b", 1}}};

    CHECK_EQ(find(rules, 2, "a"), 0);
    CHECK_EQ(find(rules, 2, "c"), 1);
    CHECK_EQ(find(rules, 1, "c"), 0);
}

static void names_of_patterns_have_rules_too(void)
{
    static const struct fc_rule rules[] = {
        {.channels = {"prices.x", 8}}, {.channels = {"prices.>", 8}}, {.channels = {">", 1}}};

    CHECK_EQ(find(rules, 3, "prices.*"), 1);
    CHECK_EQ(find(rules, 3, "prices.>"), 1);
    CHECK_EQ(find(rules, 3, "*.x"), 2);
}

static void as_many_rules_as_there_may_be_are_told_apart(void)
{
    static char names[FC_RULES_MAX][8];
    struct fc_rule rules[FC_RULES_MAX + 1];

    for (unsigned i = 0; i < FC_RULES_MAX; i++) {
        int length = snprintf(names[i], sizeof names[i], "r%u", i);
        rules[i] = (struct fc_rule){.channels = {names[i], (size_t)length}};
    }
    rules[FC_RULES_MAX] = (struct fc_rule){.channels = {">", 1}};
    for (unsigned i = 0; i < FC_RULES_MAX; i++)
        CHECK_EQ(find(rules, FC_RULES_MAX + 1, names[i]), i);
    CHECK_EQ(find(rules, FC_RULES_MAX + 1, "r255"), FC_RULES_MAX);
}

int main(void)
{
    RUN(the_first_rule_that_takes_in_a_name_is_its_rule);
    RUN(the_last_rule_is_for_all_others_whatever_its_pattern);
    RUN(names_of_patterns_have_rules_too);
    RUN(as_many_rules_as_there_may_be_are_told_apart);
    return 0;
}
