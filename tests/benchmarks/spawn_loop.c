/* The limit: COUNT times start PROGRAM and wait for it, in WIDTH threads. Nothing else. */
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

static atomic_int left;
static char *program;

static void *work(void *unused)
{
    char *argv[] = {program, NULL};
    pid_t pid;
    int status;

    (void)unused;
    while (atomic_fetch_sub(&left, 1) > 0) {
        if (posix_spawn(&pid, program, NULL, NULL, argv, environ) != 0)
            exit(1);
        if (waitpid(pid, &status, 0) != pid || status != 0)
            exit(1);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    int width;

    if (argc != 4 || (width = atoi(argv[2])) < 1 || width > 64) {
        fprintf(stderr, "usage: spawn_loop COUNT WIDTH PROGRAM\n");
        return 2;
    }
    atomic_store(&left, atoi(argv[1]));
    program = argv[3];
    for (int i = 0; i < width; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    for (int i = 0; i < width; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
