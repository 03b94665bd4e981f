# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: starts of programs, what is told of them, and verdicts beside a baseline."""
