# SPDX-License-Identifier: Apache-2.0
"""The Python side of tickline: prepares captures, runs the lab, reads runs and judges them."""
