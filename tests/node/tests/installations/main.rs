//! The documented installations, done as users do them, with only the documented edits: each
//! flashes devices with the rights that it grants, and is then uninstalled.

mod moving_over;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use flashjob_api::Phase;
use flashjob_node::images::{self, OPERATOR};
use flashjob_node::installation::{Installation, configuration, ended, job, uids};
use flashjob_node::{Node, inventory, life, suite, tests};
use flashjob_testbed::audit::forbidden;
use flashjob_testbed::process::repository;
use moving_over::over_from_the_go_operator_and_back;
use serde_json::json;
use tokio::process::Command;

/// Runs commands of the documentation in a copy of this repository's deploy folder.
async fn sh(node: &Node, folder: &Path, commands: &str) -> anyhow::Result<String> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", commands]).current_dir(folder);
    node.run(shell).await
}

/// Copies the folder `deploy` for a test to edit; returns the folder that contains the copy.
async fn copy(node: &Node, name: &str) -> anyhow::Result<PathBuf> {
    let folder = node.folder.join(name);
    std::fs::create_dir_all(&folder)?;
    let mut cp = Command::new("cp");
    cp.arg("-r").arg(repository().join("deploy")).arg(&folder);
    node.run(cp).await?;
    Ok(folder)
}

/// Writes the image's name into kustomization.yaml, as the README says.
fn name_the_image(folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("deploy/kustomization.yaml");
    let (name, tag) = OPERATOR.rsplit_once(':').context("no tag")?;
    let text = std::fs::read_to_string(&file)?;
    let text = text
        .replace("newName: flashjob-operator", &format!("newName: {name}"))
        .replace(concat!("newTag: ", env!("CARGO_PKG_VERSION")), &format!("newTag: {tag}"));
    Ok(std::fs::write(file, text)?)
}

/// Command that ends what the operator works on, before it is uninstalled.
const DELETE_WORK: &str = "kubectl delete flashrollouts,flashjobs --all --all-namespaces";

/// A documented way to install and to uninstall.
struct Way {
    name: &'static str,
    install: String,
    uninstall: String,
    installation: Installation,
}

impl Way {
    /// Installs the operator, uses it in a separate namespace, uninstalls it, and checks that
    /// nothing is left.
    async fn there_and_back(self, node: &mut Node) -> anyhow::Result<()> {
        let before = inventory::inventory(node).await?;
        let folder = copy(node, self.name).await?;
        name_the_image(&folder)?;
        life::make_namespace(node, self.name).await?;
        sh(node, &folder, &self.install).await?;
        life::live(node, &self.installation, self.name).await?;
        sh(node, &folder, DELETE_WORK).await?;
        sh(node, &folder, &self.uninstall).await?;
        node.kubectl(&["delete", "namespace", self.name, "--timeout=180s"]).await?;
        inventory::nothing_new(node, &before).await
    }
}

async fn kustomization(node: &mut Node) -> anyhow::Result<()> {
    let way = Way {
        name: "by-kustomization",
        install: "kubectl apply --server-side -k deploy".to_owned(),
        uninstall: "kubectl delete -k deploy".to_owned(),
        installation: Installation::default(),
    };
    way.there_and_back(node).await
}

async fn single_steps(node: &mut Node) -> anyhow::Result<()> {
    let way = Way {
        name: "by-steps",
        install: format!(
            "kubectl apply --server-side -f deploy/crds
             kubectl apply -f deploy/manager -f deploy/rbac/role.yaml
             kubectl -n flashjob-system set image deployment/flashjob-operator operator={OPERATOR}"
        ),
        uninstall: "kubectl delete -f deploy/crds
             kubectl delete -f deploy/manager -f deploy/rbac/role.yaml"
            .to_owned(),
        installation: Installation::default(),
    };
    way.there_and_back(node).await
}

async fn make_deploy(node: &mut Node) -> anyhow::Result<()> {
    let make = format!("make --silent --directory {}", repository().display());
    let way = Way {
        name: "by-make",
        install: format!("{make} deploy IMG={OPERATOR} NAMESPACE=fleet-ops"),
        uninstall: format!("{make} undeploy NAMESPACE=fleet-ops"),
        installation: Installation {
            namespace: "fleet-ops".to_owned(),
            ..Installation::default()
        },
    };
    way.there_and_back(node).await
}

async fn installer_file(node: &mut Node) -> anyhow::Result<()> {
    let make = format!("make --silent --directory {}", repository().display());
    // Not dist/install.yaml, which belongs to the person who runs the test.
    let file = node.folder.join("install.yaml");
    let way = Way {
        name: "by-file",
        install: format!(
            "{make} build-installer IMG={OPERATOR} INSTALLER={0}
             kubectl apply --server-side -f {0}",
            file.display()
        ),
        uninstall: format!("kubectl delete -f {}", file.display()),
        installation: Installation::default(),
    };
    way.there_and_back(node).await
}

async fn one_namespace_only(node: &mut Node) -> anyhow::Result<()> {
    let name = "one-namespace";
    let make = format!("make --silent --directory {}", repository().display());
    let way = Way {
        name,
        install: format!(
            "{make} install
             kubectl apply -f deploy/manager
             sed 's/namespace: fleet/namespace: {name}/' deploy/rbac/namespaced.yaml \
             | kubectl apply -f -
             kubectl -n flashjob-system set image deployment/flashjob-operator operator={OPERATOR}
             kubectl -n flashjob-system set env deployment/flashjob-operator \
             FLASHJOB_WATCH_NAMESPACE={name}"
        ),
        uninstall: format!(
            "{make} uninstall
             sed 's/namespace: fleet/namespace: {name}/' deploy/rbac/namespaced.yaml \
             | kubectl delete -f -
             kubectl delete -f deploy/manager"
        ),
        installation: Installation { watched: Some(name.to_owned()), ..Installation::default() },
    };
    way.there_and_back(node).await
}

async fn chart(node: &mut Node) -> anyhow::Result<()> {
    let (helm, (image, tag)) = (images::helm()?, OPERATOR.rsplit_once(':').context("no tag")?);
    let way = Way {
        name: "by-chart",
        install: format!(
            "{helm} install flashjob-operator deploy/chart --namespace flashjob-system \
             --create-namespace --set image.repository={image} --set image.tag={tag}"
        ),
        uninstall: format!(
            "{helm} uninstall flashjob-operator --namespace flashjob-system --wait
             make --silent --directory {} uninstall
             kubectl delete namespace flashjob-system",
            repository().display()
        ),
        installation: Installation { values: Some(json!({})), ..Installation::default() },
    };
    way.there_and_back(node).await
}

/// Installs two releases side by side, each for its own namespace and without rights in the
/// other's.
async fn two_releases_side_by_side(node: &mut Node) -> anyhow::Result<()> {
    let before = inventory::inventory(node).await?;
    let (helm, (image, tag)) = (images::helm()?, OPERATOR.rsplit_once(':').context("no tag")?);
    let sites = ["first", "second"];
    let mut installations = Vec::new();
    for (index, site) in sites.into_iter().enumerate() {
        life::make_namespace(node, site).await?;
        let namespace = format!("{site}-operator");
        let values = json!({
            "rbac": {"scope": "Namespaces"}, "watchNamespace": site,
            "crds": {"enabled": index == 0},
        });
        let file = node.folder.join(format!("{site}.json"));
        std::fs::write(&file, values.to_string())?;
        let install = format!(
            "{helm} install flashjob-operator deploy/chart --namespace {namespace} \
             --create-namespace --values {} --set image.repository={image} --set image.tag={tag}",
            file.display()
        );
        sh(node, &repository(), &install).await?;
        let watched = Some(site.to_owned());
        let values = Some(values);
        installations.push(Installation { namespace, watched, values, ..Installation::default() });
    }
    let plugins = ["esp32"];
    let mut fleets = Vec::new();
    for (installation, site) in installations.iter().zip(sites) {
        installation.rolled_out(node).await?;
        installation.configure(node, &configuration(node, &plugins)).await?;
        installation.serves(node, &plugins).await?;
        let devices = node.devices(site, &["esp32:thermo:0.1.0=2"]).await?;
        let uids = uids(node, site, 2).await?;
        node.apply(&job(site, "job", &uids, json!({}))).await?;
        fleets.push(devices);
    }
    for (devices, site) in fleets.iter().zip(sites) {
        let status = ended(node, site, "job").await?;
        ensure!(status.phase == Some(Phase::Completed), "{site}: {status:?}");
        let reports = devices.fleet.reports().await?;
        ensure!(reports.iter().all(|report| report.flashed == 1), "{site}: {reports:?}");
        node.kubectl(&["-n", site, "delete", "flashjobs", "--all", "--wait"]).await?;
    }
    for installation in &installations {
        let user = installation.account().user();
        let forbidden = forbidden(&node.control_plane.audit_log, &user)?;
        ensure!(forbidden.is_empty(), "{user}: {forbidden:?}");
        let namespace = &installation.namespace;
        let uninstall = format!("{helm} uninstall flashjob-operator -n {namespace} --wait");
        sh(node, &repository(), &uninstall).await?;
        node.kubectl(&["delete", "namespace", namespace, "--timeout=180s"]).await?;
    }
    sh(node, &repository(), "kubectl delete -f deploy/crds").await?;
    for site in sites {
        node.kubectl(&["delete", "namespace", site, "--timeout=180s"]).await?;
    }
    inventory::nothing_new(node, &before).await
}

fn main() -> ExitCode {
    suite::main(tests![
        kustomization,
        single_steps,
        make_deploy,
        installer_file,
        one_namespace_only,
        chart,
        two_releases_side_by_side,
        over_from_the_go_operator_and_back,
    ])
}
