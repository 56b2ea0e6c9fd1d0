/* Runs files through a fuzz target, where there is no libFuzzer: the corpus as a test, or a crash under a debugger.
 * Each input is copied to memory of exactly its size, so that ASan sees a byte too many. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LONGEST = 1 << 20 };

static int replay(const char *path)
{
    static uint8_t buffer[LONGEST];
    FILE *file = fopen(path, "rb");

    if (!file) {
        perror(path);
        return 1;
    }
    size_t n = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    uint8_t *input = malloc(n + (n == 0));
    if (!input)
        return 1;
    for (size_t i = 0; i < n; i++)
        input[i] = buffer[i];
    printf("%s\n", path);
    fflush(stdout);
    LLVMFuzzerTestOneInput(input, n);
    free(input);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = argc < 2; /* nothing to run is no success */

    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    return failed;
}
