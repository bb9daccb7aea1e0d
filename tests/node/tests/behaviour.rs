//! Smoke.
use flashjob_node::{Node, suite, tests};
async fn a_node_comes_up(node: &mut Node) -> anyhow::Result<()> {
    println!("{}", node.kubectl(&["get", "nodes,pods", "-A", "-o", "wide"]).await?);
    Ok(())
}
fn main() -> std::process::ExitCode {
    suite::main(tests![a_node_comes_up])
}
