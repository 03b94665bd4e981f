# SPDX-License-Identifier: Apache-2.0
# build/ holds everything; `make BUILD=build-asan SANITIZE=address,undefined` builds beside it, and
# CRASH=1 one with crash points.

VERSION  := 0.1
ifeq ($(origin CC),default)
CC       := gcc
endif
BUILD    ?= build
SANITIZE ?=
CRASH    ?=

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wvla -Werror
SANITIZERS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all)
# gcc warns that it does not follow fences; what they order is tested by content.
SANITIZERS += $(if $(filter thread,$(SANITIZE)),-Wno-tsan)
# Functions at cache lines: else a change of one moves the loops of its neighbours, and their speed by a tenth.
CFLAGS   := -std=gnu11 -O2 -g -fno-omit-frame-pointer -falign-functions=64 $(WARNINGS) $(SANITIZERS) \
	    $(if $(CRASH),-DTICKLINE_CRASH_POINTS)
CPPFLAGS := -D_GNU_SOURCE -I. -isystem $(BUILD)/gen -DTICKLINE_VERSION='"$(VERSION)"'
CXXFLAGS := -std=gnu++17 $(filter-out -std=%,$(CFLAGS))
LDFLAGS  := -Wl,--build-id,--as-needed $(SANITIZERS)

SHM    := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard shm/*.c))
STAGE  := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard stage/*.c))
LAUNCH := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard launch/*.c))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard $(1)/*.c)) $(if $(filter worker,$(1)),$(CODEC))

# What protoc-c and capnp make of the worker's schemas, and the C++ that reads Cap'n Proto.
GEN   := $(BUILD)/gen
CODEC := $(BUILD)/obj/worker/schema_v4_capnp.o $(GEN)/request.pb-c.o $(GEN)/request.capnp.o

STAGE_LIBS := -linih -ljansson -luring -lnuma -lseccomp -lprotobuf-c -lcapnp -lkj -lstdc++ -lm -lpthread

PROGRAMS := tickline rx worker tx tracer sink client
# One CUnit program each; what it tests beside shm/ and stage/ is named below.
TESTS := $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))

all: $(PROGRAMS:%=$(BUILD)/%) $(BUILD)/flags.json

$(BUILD)/rx: $(call objects,rx) $(STAGE) $(SHM)
$(BUILD)/worker: $(call objects,worker) $(STAGE) $(SHM)
$(BUILD)/tx: $(call objects,tx) $(STAGE) $(SHM)
$(BUILD)/tracer: $(call objects,tracer) $(STAGE) $(SHM)
$(BUILD)/tickline: $(LAUNCH) $(STAGE) $(SHM)
$(BUILD)/tickline: LIBS := -lncursesw -ltinfo
# Both judge and record what they receive.
$(BUILD)/sink: $(filter-out $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard harness/client*.c)),$(call objects,harness)) $(STAGE) $(SHM)
$(BUILD)/client: $(filter-out %/sink.o %/sink_options.o %/sink_tcp.o,$(call objects,harness)) $(STAGE) $(SHM)
$(PROGRAMS:%=$(BUILD)/%):
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS) $(LIBS)

$(BUILD)/test_schema $(BUILD)/test_handler: $(filter-out %/main.o,$(call objects,worker))
FRAMING := $(filter $(BUILD)/obj/rx/frame%.o,$(call objects,rx))
FOLLOWING := $(patsubst %,$(BUILD)/obj/rx/%.o,decode reassembly stream flows follow) $(FRAMING)
$(BUILD)/test_decode $(BUILD)/test_follow: $(FOLLOWING)
$(BUILD)/test_frame: $(FRAMING) $(filter $(BUILD)/obj/worker/schema%.o $(GEN)/%,$(call objects,worker))
$(BUILD)/test_tracer $(BUILD)/test_salvage: $(filter-out %/main.o,$(call objects,tracer))
$(BUILD)/test_config $(BUILD)/test_placement $(BUILD)/test_check $(BUILD)/test_sandbox: $(filter-out %/main.o %/watch.o,$(LAUNCH))
$(BUILD)/test_latency: $(BUILD)/obj/launch/latency.o
$(BUILD)/test_store: $(BUILD)/obj/launch/store.o
$(BUILD)/test_hostile: $(filter-out %/main.o %/worker.o,$(call objects,worker)) $(BUILD)/obj/tracer/file.o \
	$(BUILD)/obj/tracer/ctf.o $(BUILD)/obj/tracer/crc32c.o $(BUILD)/obj/launch/latency.o $(BUILD)/obj/launch/runfile.o
$(BUILD)/test_watch_page: $(BUILD)/obj/launch/watch_page.o $(BUILD)/obj/launch/view.o
# These kill: everything in them is compiled with crash points, whatever the build.
CRASHING := test_crash test_model test_stream test_tcp_memory
crashing  = $(patsubst %.c,$(BUILD)/crash/%.o,$(foreach folder,$(1),$(wildcard $(folder)/*.c))) \
	    $(if $(filter worker,$(1)),$(CODEC))
$(BUILD)/test_crash: $(filter-out %/main.o,$(call crashing,tests/crash tracer worker stage))
$(BUILD)/test_model: $(call crashing,tests/model)
$(BUILD)/test_stream: $(filter-out %/main.o,$(call crashing,tx stage))
$(BUILD)/test_tcp_memory: $(BUILD)/crash/rx/tcp_memory.o $(filter $(BUILD)/crash/rx/frame%.o,$(call crashing,rx)) \
	$(BUILD)/crash/stage/kernel_stamp.o
$(CRASHING:%=$(BUILD)/%): $(BUILD)/%: $(BUILD)/crash/tests/%.o $(call crashing,shm)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS) -lcunit

$(patsubst %,$(BUILD)/%,$(filter-out $(CRASHING),$(TESTS))): $(BUILD)/%: $(BUILD)/obj/tests/%.o $(STAGE) $(SHM)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS) -lcunit

# What the programs make of bytes, for tests/test_judge.py.
$(BUILD)/judge: $(BUILD)/obj/tests/judge.o $(FRAMING) $(filter-out %/main.o %/worker.o,$(call objects,worker)) $(STAGE) $(SHM)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS)

tests: $(TESTS:%=$(BUILD)/%) $(BUILD)/judge

# Benchmarks: a program a file, but for what they share.
BENCH_SHARED := bench bench_main bench_report rig scratch queue $(patsubst tests/bench/%.c,%,$(wildcard tests/bench/e2e_*.c))
BENCHES      := $(filter-out $(BENCH_SHARED) instructions,$(patsubst tests/bench/%.c,%,$(wildcard tests/bench/*.c)))
BENCH_BASE   := $(BENCH_SHARED:%=$(BUILD)/obj/tests/bench/%.o) $(STAGE) $(SHM)

$(BENCHES:%=$(BUILD)/bench/%): $(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o $(BENCH_BASE)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS)

# The pipeline without sockets: the real rx and tx with a source and a sink in memory instead.
MEMORY := $(BUILD)/obj/tests/bench/memory
RIG    := $(BUILD)/obj/tests/bench/bench.o $(BUILD)/obj/tests/bench/rig.o
KEPT   := $(filter-out $(BUILD)/obj/stage/receiver% %/sender.o %/io.o,$(STAGE)) $(SHM) $(MEMORY)/memory.o
$(BUILD)/bench/memory_rx: $(filter-out %/socket.o,$(call objects,rx)) $(MEMORY)/source.o $(KEPT)
$(BUILD)/bench/memory_tx: $(filter-out %/socket.o,$(call objects,tx)) $(MEMORY)/sink.o $(KEPT)
$(BUILD)/bench/instructions: $(filter-out %/socket.o %/main.o,$(call objects,rx) $(call objects,tx)) \
		$(filter-out %/main.o,$(call objects,worker)) $(BUILD)/obj/tests/bench/instructions.o \
		$(MEMORY)/source.o $(MEMORY)/sink.o $(KEPT) $(RIG)
$(BUILD)/bench/memory_rx $(BUILD)/bench/memory_tx $(BUILD)/bench/instructions:
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS)

$(BUILD)/bench/codec: $(filter-out %/main.o,$(call objects,worker))

benches: all $(BENCHES:%=$(BUILD)/bench/%) $(BUILD)/bench/memory_rx $(BUILD)/bench/memory_tx \
	$(BUILD)/bench/instructions

# bench.py builds what it runs.
bench:
	harness/setup.sh requirements-bench.txt
	harness/bench.py

# Peers of theirs: other people's rings, stamps and wake-ups, as Debian ships them. Only these need its
# packages. (Those of haproxy, nginx and LTTng start daemons; no benchmark uses them.)
PEERS         := boost ck kernel lttng
PEER_PACKAGES := libboost-dev libck-dev lttng-tools liblttng-ust-dev haproxy nginx libnginx-mod-stream socat
PEER          := $(BUILD)/obj/tests/bench/peers

$(BUILD)/bench/peer_lttng: $(PEER)/lttng_session.o
$(BUILD)/bench/peer_lttng: LIBS := -llttng-ust
$(PEERS:%=$(BUILD)/bench/peer_%): $(BUILD)/bench/peer_%: $(PEER)/%.o $(BENCH_BASE)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(STAGE_LIBS) $(LIBS)

$(PEER)/%.o: tests/bench/peers/%.cc $(BUILD)/flags.json
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

bench-peers:
	harness/setup.sh $(PEER_PACKAGES)
	$(MAKE) $(PEERS:%=$(BUILD)/bench/peer_%)

$(GEN)/request.pb-c.c: worker/request.proto
	@mkdir -p $(@D)
	protoc-c --proto_path=worker --c_out=$(@D) $<
$(GEN)/request.capnp.c++: worker/request.capnp
	@mkdir -p $(@D)
	capnp compile --src-prefix=worker -oc++:$(@D) $<
# Theirs, with their warnings.
$(GEN)/%.o: $(GEN)/%.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<
$(GEN)/%.o: $(GEN)/%.c++
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(if $(SANITIZE),-fno-sanitize=vptr) -w -c -o $@ $<
$(BUILD)/obj/worker/schema_v3.o $(BUILD)/crash/worker/schema_v3.o: | $(GEN)/request.pb-c.o
$(BUILD)/obj/worker/schema_v4_capnp.o: | $(GEN)/request.capnp.o
# No vptr: what the libraries' own classes are, only they could say.
$(BUILD)/obj/worker/schema_v4_capnp.o: worker/schema_v4_capnp.cc $(BUILD)/flags.json
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(if $(SANITIZE),-fno-sanitize=vptr) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.o: %.c $(BUILD)/flags.json
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/crash/%.o: %.c $(BUILD)/flags.json
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DTICKLINE_CRASH_POINTS -MMD -MP -c -o $@ $<

# Rewritten only where the flags differ, so that a change of them rebuilds everything.
FLAGS_JSON := {"cc": "$(shell $(CC) --version | head -n 1)", "cflags": "$(CFLAGS)", "version": "$(VERSION)"}
$(BUILD)/flags.json: FORCE
	@mkdir -p $(BUILD)
	@echo '$(FLAGS_JSON)' | cmp -s - $@ || echo '$(FLAGS_JSON)' > $@

asan:
	$(MAKE) BUILD=build-asan SANITIZE=address,undefined all tests
tsan:
	$(MAKE) BUILD=build-tsan SANITIZE=thread tests
# All programs with crash points (shm/crash.h).
crash:
	$(MAKE) BUILD=build-crash CRASH=1 all

# Fuzzers (tests/fuzz/): a target a file, built by clang into build-fuzz/, run one after the other.
#   make fuzz [FUZZ_SECONDS=60] [TARGET=name]
FUZZ_SHARED := fuzz arena
FUZZERS     := $(filter-out $(FUZZ_SHARED),$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
FUZZ        := $(BUILD)/obj/tests/fuzz
FUZZ_SECONDS ?= 60
TARGET       ?=

$(BUILD)/fuzz/request: $(FRAMING) $(filter-out %/main.o,$(call objects,worker))
$(BUILD)/fuzz/tap: $(FOLLOWING)
$(BUILD)/fuzz/runfile: $(BUILD)/obj/launch/runfile.o
$(BUILD)/fuzz/control: $(BUILD)/obj/launch/process.o $(BUILD)/obj/launch/store.o
$(BUILD)/fuzz/latency: $(BUILD)/obj/launch/latency.o
$(BUILD)/fuzz/drain $(BUILD)/fuzz/repair: $(filter-out %/main.o,$(call objects,tracer))
$(FUZZERS:%=$(BUILD)/fuzz/%): $(BUILD)/fuzz/%: $(FUZZ)/%.o $(FUZZ_SHARED:%=$(FUZZ)/%.o) $(STAGE) $(SHM)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -Wl,--wrap=region_corrupt -o $@ $^ $(STAGE_LIBS)

fuzzers: $(FUZZERS:%=$(BUILD)/fuzz/%)

fuzz:
	tests/fuzz/run.sh --seconds $(FUZZ_SECONDS) $(TARGET)

# Programs and harness under lib/, `tickline` and a `tickline-TOOL` for each tool of the harness in
# bin/, but for bench.py, which needs the sources. DESTDIR is put before all of it.
PREFIX  ?= /usr/local
DESTDIR ?=
LIB     := $(DESTDIR)$(PREFIX)/lib/tickline
BIN     := $(DESTDIR)$(PREFIX)/bin
SHARE   := $(DESTDIR)$(PREFIX)/share
INCLUDE := $(DESTDIR)$(PREFIX)/include/tickline
PKGCONFIG := $(DESTDIR)$(PREFIX)/lib/pkgconfig
EXAMPLES := $(SHARE)/tickline/examples/handler
TOOLS   := $(filter-out _% bench,$(patsubst harness/%.py,%,$(wildcard harness/*.py)))
MAN     := $(wildcard man/*.1)
COMPLETION := $(SHARE)/bash-completion/completions

install: all
	install -d $(LIB)/harness/ticklab $(BIN) $(SHARE)/tickline/configs $(SHARE)/man/man1 $(COMPLETION)
	install -m 755 $(PROGRAMS:%=$(BUILD)/%) $(LIB)
	install -m 644 $(BUILD)/flags.json $(LIB)
	install -m 755 $(TOOLS:%=harness/%.py) $(LIB)/harness
	install -m 644 harness/_venv.py $(LIB)/harness
	install -m 644 harness/ticklab/*.py $(LIB)/harness/ticklab
	install -m 644 configs/*.ini $(SHARE)/tickline/configs
	install -d $(INCLUDE) $(PKGCONFIG) $(EXAMPLES)
	install -m 644 worker/handler.h $(INCLUDE)
	install -m 644 examples/handler/* $(EXAMPLES)
	printf 'prefix=%s\nName: tickline\nDescription: %s\nVersion: %s\nCflags: -I$${prefix}/include\n' \
		'$(PREFIX)' "handlers of one's own for tickline" '$(VERSION)' > $(PKGCONFIG)/tickline.pc
	install -m 644 $(MAN) $(SHARE)/man/man1
	install -m 644 completion/tickline.bash $(COMPLETION)/tickline
	ln -sfn ../lib/tickline/tickline $(BIN)/tickline
	for tool in $(TOOLS); do ln -sfn ../lib/tickline/harness/$$tool.py $(BIN)/tickline-$$tool; \
		ln -sfn tickline $(COMPLETION)/tickline-$$tool; done

uninstall:
	rm -rf $(LIB) $(SHARE)/tickline $(INCLUDE)
	rm -f $(PKGCONFIG)/tickline.pc
	rm -f $(BIN)/tickline $(TOOLS:%=$(BIN)/tickline-%) $(MAN:man/%=$(SHARE)/man/man1/%)
	rm -f $(COMPLETION)/tickline $(TOOLS:%=$(COMPLETION)/tickline-%)

lint:
	tests/lint.sh

clean:
	rm -rf build build-asan build-tsan build-fuzz build-crash

.PHONY: all tests benches bench bench-peers fuzzers fuzz install uninstall asan tsan crash lint clean FORCE
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
