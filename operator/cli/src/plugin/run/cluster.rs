//! A device of the cluster that the kubeconfig names. Reads the cluster, and changes nothing.

use flashjob_api::akri;
use kube::{Api, Client};

use crate::cause::{root, through_proxy};
use crate::cluster::kubeconfig;
use crate::failure::{Code, Failure};

/// Returns the Akri Instance of that name, in that namespace or the kubeconfig's.
pub async fn instance(name: &str, namespace: Option<&str>) -> Result<akri::Instance, Failure> {
    let unreachable = |error: String| {
        Failure::new(
            Code::Unavailable,
            "ClusterUnreachable",
            format!("no cluster: {error}; set KUBECONFIG"),
        )
    };
    let config = kubeconfig::inferred().map_err(unreachable)?;
    let namespace = namespace.map_or_else(|| config.default_namespace.clone(), str::to_owned);
    let client = Client::try_from(config).map_err(|error| unreachable(root(&error)))?;
    let instances: Api<akri::Instance> = Api::namespaced(client, &namespace);
    match instances.get_opt(name).await {
        Ok(Some(instance)) => Ok(instance),
        Ok(None) => {
            let message = format!(
                "there is no Akri Instance {namespace}/{name}; see kubectl get instances.akri.sh \
                 -A"
            );
            Err(Failure::new(Code::Unavailable, "NotFound", message))
        }
        Err(error) => Err(unread(&namespace, name, &error)),
    }
}

/// Returns the failure of a read: permission denied, or a cluster that does not answer.
fn unread(namespace: &str, name: &str, error: &kube::Error) -> Failure {
    let cause = match error {
        kube::Error::Api(status) => status.message.clone(),
        _ => {
            let through = through_proxy();
            format!("the API server does not answer{through}: {}", root(error))
        }
    };
    let message = format!("cannot read Akri Instance {namespace}/{name}: {cause}");
    match error {
        kube::Error::Api(status) if [401, 403].contains(&status.code) => {
            let message = format!(
                "{message}; the user of the kubeconfig needs the verb get on instances.akri.sh in \
                 this namespace"
            );
            Failure::new(Code::Unavailable, "AccessDenied", message)
        }
        _ => Failure::new(Code::Unavailable, "ClusterUnreachable", message),
    }
}
