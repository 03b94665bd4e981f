/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/describe.h"
#include "worker/worker.h"

#include <string.h>

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--describe") == 0)
        return describe_main();
    return stage_main(argc, argv, &worker_ops, NULL);
}
