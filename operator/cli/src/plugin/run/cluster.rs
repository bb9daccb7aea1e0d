//! A device of the cluster that the kubeconfig names. Reads the cluster, and changes nothing.

use flashjob_api::akri;
use kube::{Api, Client};

use crate::cause::{no_answer, root};
use crate::cluster::{kubeconfig, refused};
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

/// Returns the failure of a read: an invalid name, permission denied, or a cluster that does not
/// answer.
fn unread(namespace: &str, name: &str, error: &kube::Error) -> Failure {
    let what = format!("read Akri Instance {namespace}/{name}");
    let cause = match error {
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => return refused(&what, error),
        kube::Error::Api(status) => status.message.clone(),
        // `refused` would advise --request-timeout, which this command does not have.
        _ => no_answer(error),
    };
    let message = format!("cannot {what}: {cause}");
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

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn only_a_request_without_an_answer_is_told_as_such() {
        let invalid = Request::get("a b").body(()).expect_err("a blank in a URL");
        let invalid = unread("fleet", "a b", &kube::Error::HttpError(invalid));
        assert_eq!(invalid.code, Code::Usage);
        let expected =
            "cannot read Akri Instance fleet/a b: a name on the command line is invalid";
        assert!(invalid.message.starts_with(expected), "{}", invalid.message);
        let page = serde_json::from_str::<u8>("<html>").expect_err("no JSON");
        let page = unread("fleet", "akri-a", &kube::Error::SerdeError(page));
        assert_eq!(page.code, Code::Unavailable);
        let expected = "cannot read Akri Instance fleet/akri-a: the answer cannot be read: expect";
        assert!(page.message.starts_with(expected), "{}", page.message);
    }
}
