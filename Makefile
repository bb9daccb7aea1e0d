# The commands people type. `make help` lists them.

DEVICES ?= 12
ADDRESSES ?= 4
CONFIG ?= deploy/samples/operator-config.yaml
NAMESPACE ?= flashjob-system
CACHE ?= $(CURDIR)/target/plugin-cache
BENCH ?= quick
BENCH_OPTIONS ?=
FUZZ_SECONDS ?= 60
RUNS ?= 20
FORCE ?=
INSTALLER ?= dist/install.yaml
NODE ?= played

.PHONY: help demo demo-up demo-down test test-node bench nightly soak fuzz lint deny generate sessions build plugins install uninstall deploy undeploy build-installer helm-package run check-tools install-cli docker-build docker-push docker-buildx

help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

check-tools: ## Say which of the tools that are needed are missing, and how to get them.
	@tests/prerequisites.sh

build: check-tools ## Build all programs.
	cargo build --workspace --bins

plugins: check-tools ## Build the device plugins to WebAssembly components, into target/plugins.
	tests/wasm/build.sh

demo: build $(if $(filter real,$(NODE)),plugins) ## Flash a mixed fleet of simulated devices on a real control plane, and show it; NODE=real: on a real node too.
ifeq ($(NODE),real)
	target/debug/node-demo $(DEVICES)
else
	target/debug/demo run --devices $(DEVICES) --addresses $(ADDRESSES)
endif

demo-up: build ## Start the same and leave it running: make demo-up DEVICES=12 ADDRESSES=4.
	target/debug/demo up --devices $(DEVICES) --addresses $(ADDRESSES)

demo-down: ## End what demo-up started.
	target/debug/demo down

test: build plugins ## Run all tests on a real control plane, and on a real node where root and the kernel allow it.
	tests/control-plane/build.sh >/dev/null
	tests/run.sh

test-node: build plugins ## Run only the tests on a real node: installations, and how the operator behaves there. Needs root; says what is missing.
	tests/control-plane/build.sh >/dev/null
	cargo test -p flashjob-node

nightly: build plugins ## Kill the operator at random moments and look for broken rules, many times: make nightly [FLASHJOB_RANDOM_KILLS=100] [PROPTEST_CASES=2000].
	tests/control-plane/build.sh >/dev/null
	FLASHJOB_RANDOM_KILLS=$${FLASHJOB_RANDOM_KILLS:-100} cargo test --workspace --test end_to_end kills:: -- --nocapture
	PROPTEST_CASES=$${PROPTEST_CASES:-2000} PROPTEST_RNG_SEED=$${PROPTEST_RNG_SEED:-$$(date +%s)} cargo test --workspace --lib -- plan::tests::properties rollout::tests::properties

soak: build plugins ## Run the end-to-end tests many times beside a program that keeps every processor busy: make soak [RUNS=20]. Needs stress-ng.
	tests/control-plane/build.sh >/dev/null
	tests/soak.sh $(RUNS)

fuzz: check-tools ## Feed everything that comes from outside with bytes that lead to new code: make fuzz [FUZZ_SECONDS=60] [FUZZ_TARGETS="reference answer"].
	tests/fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: plugins ## Measure plugins, flash programs, and the operator beside a client of only the four requests (docs/performance.md): make bench [BENCH=quick|full|rollout] [BENCH_OPTIONS="--devices 1000"].
	tests/control-plane/build.sh >/dev/null
	cargo build --profile benchmark --workspace --bins
ifeq ($(BENCH),rollout)
	target/benchmark/bench rollout $(BENCH_OPTIONS)
else
	target/benchmark/bench plugins
	target/benchmark/bench flashers
	target/benchmark/bench run $(BENCH) $(BENCH_OPTIONS)
endif

lint: check-tools ## Check format and lints.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Check licences and advisories of the dependencies (needs cargo-deny).
	cargo deny check

generate: ## Make what is made from the code: CustomResourceDefinitions, rights, the reference of reasons.
	cargo run --quiet -p flashjob-xtask -- generate

sessions: build plugins ## Record docs/kubectl-flashjob-sessions.md anew from the program.
	tests/control-plane/build.sh >/dev/null
	FLASHJOB_RECORD=1 cargo test --workspace --test cli sessions::

# Images. CONTAINER_TOOL is docker, podman or buildah (default: the first that works here), or layout: an archive, without any of them.
VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml)
IMG ?= flashjob-operator:$(VERSION)
CONTAINER_TOOL ?=
PLATFORMS ?= linux/amd64,linux/arm64
BASE ?= scratch
BUILD ?=
TARGET ?= operator
IMAGE = IMG='$(IMG)' TARGET='$(TARGET)' CONTAINER_TOOL='$(CONTAINER_TOOL)' PLATFORMS='$(PLATFORMS)' BASE='$(BASE)' BUILD='$(BUILD)' VERSION='$(VERSION)' deploy/image/make.sh

docker-build: ## Build an image: make docker-build IMG=registry/name:tag [TARGET=operator|flasher] [CONTAINER_TOOL=docker|podman|buildah|layout] [BASE=scratch].
	@$(IMAGE) build

docker-push: ## Push an image that was built: make docker-push IMG=registry/name:tag.
	@$(IMAGE) push

docker-buildx: ## Build the image for several platforms and push it: make docker-buildx IMG=registry/name:tag [TARGET=operator|flasher] [PLATFORMS=linux/amd64,linux/arm64].
	@$(IMAGE) buildx

# What is applied belongs to this project alone, so a field that another tool set (kubectl set image, Helm) is set back.
install: ## Install the CustomResourceDefinitions into the current cluster.
	kubectl apply --server-side --force-conflicts -f deploy/crds

uninstall: ## Remove the CustomResourceDefinitions from the current cluster. Refuses while there are FlashRollouts or FlashJobs, unless FORCE=1.
	@FORCE='$(FORCE)' deploy/install/remove.sh

deploy: ## Install everything into the current cluster: make deploy IMG=registry/name:tag [NAMESPACE=flashjob-system].
	@deploy/install/manifests.sh '$(IMG)' '$(NAMESPACE)' | kubectl apply --server-side --force-conflicts -f -
	@echo
	@echo 'The operator starts. Next:'
	@echo '  kubectl -n $(NAMESPACE) rollout status deployment/flashjob-operator'
	@echo '  kubectl -n $(NAMESPACE) create configmap flashjob-operator-config --from-file=config.yaml=my-config.yaml --dry-run=client -o yaml | kubectl apply -f -'
	@echo '  kubectl get deviceplugins'

undeploy: ## Remove everything from the current cluster: make undeploy [NAMESPACE=flashjob-system]. Refuses while there are FlashRollouts or FlashJobs, unless FORCE=1.
	@FORCE='$(FORCE)' NAMESPACE='$(NAMESPACE)' deploy/install/remove.sh everything

build-installer: ## Write dist/install.yaml, for kubectl apply --server-side -f: make build-installer IMG=registry/name:tag [NAMESPACE=flashjob-system] [INSTALLER=dist/install.yaml].
	@mkdir -p '$(dir $(INSTALLER))'
	@deploy/install/manifests.sh '$(IMG)' '$(NAMESPACE)' >'$(INSTALLER).new'
	@mv '$(INSTALLER).new' '$(INSTALLER)'
	@echo '$(INSTALLER) installs $(IMG) into namespace $(NAMESPACE): kubectl apply --server-side -f $(INSTALLER)'

helm-package: ## Write dist/flashjob-operator-VERSION.tgz, the Helm chart; push it with: helm push dist/flashjob-operator-VERSION.tgz oci://REGISTRY/PROJECT.
	@mkdir -p dist
	@helm=$$(tests/helm/build.sh) && "$$helm" package deploy/chart --destination dist

run: build ## Run the operator on this machine against the current kubeconfig: make run CONFIG=my-config.yaml. Beside a deployed one it stands by.
	kubectl get namespace $(NAMESPACE) >/dev/null 2>&1 || kubectl create namespace $(NAMESPACE)
	target/debug/flashjob-operator --config $(CONFIG) --cache $(CACHE) --namespace $(NAMESPACE)

install-cli: check-tools ## Install kubectl-flashjob, so that kubectl flashjob works.
	cargo install --locked --path operator/cli
