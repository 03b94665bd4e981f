# SPDX-License-Identifier: Apache-2.0
# Schema v4, in Cap'n Proto's stream framing.
@0xc0a9d1e6f2b84537;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("tickline");

struct Request {
  id @0 :UInt64;
  payload @1 :Data;
}
