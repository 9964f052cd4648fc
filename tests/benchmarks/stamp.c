/* A job that says when it began: writes the wall clock in nanoseconds into its argument. */
#include <stdio.h>
#include <time.h>

int main(int argc, char **argv)
{
    struct timespec now;
    FILE *out;

    clock_gettime(CLOCK_REALTIME, &now);
    if (argc != 2 || (out = fopen(argv[1], "w")) == NULL)
        return 1;
    fprintf(out, "%lld\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec);
    return fclose(out) != 0;
}
