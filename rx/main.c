/* SPDX-License-Identifier: Apache-2.0 */
#include "rx/rx.h"

int main(int argc, char **argv)
{
    return stage_main(argc, argv, &rx_ops, NULL);
}
