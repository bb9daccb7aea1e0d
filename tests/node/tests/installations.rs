//! Smoke.
use flashjob_node::installation::Installation;
use flashjob_node::{Node, inventory, life, suite, tests};
async fn smoke(node: &mut Node) -> anyhow::Result<()> {
    let before = inventory::inventory(node).await?;
    let mut sh = tokio::process::Command::new("sh");
    sh.arg("-ec").arg("kubectl apply --server-side -f deploy/crds; sed 's/configMap: {name: flashjob-operator}/configMap: {name: flashjob-operator-config, optional: true}/; s,image: flashjob-operator:0.1.0,image: registry.example/fleet/flashjob-operator:test,' deploy/manager/manager.yaml | kubectl apply -f - ; kubectl apply -f deploy/rbac/role.yaml").current_dir(flashjob_testbed::process::repository());
    node.run(sh).await?;
    let installation = Installation::default();
    installation
        .configure(node, &flashjob_node::installation::configuration(node, &["esp32", "esp32s2"]))
        .await?;
    life::make_namespace(node, "fleet").await?;
    life::live(node, &installation, "fleet").await?;
    inventory::nothing_new(node, &before).await
}
fn main() -> std::process::ExitCode {
    suite::main(tests![smoke])
}
