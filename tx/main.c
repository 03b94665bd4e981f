/* SPDX-License-Identifier: Apache-2.0 */
#include "tx/tx.h"

int main(int argc, char **argv)
{
    return stage_main(argc, argv, &tx_ops, NULL);
}
