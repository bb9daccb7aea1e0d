//! Client layer that reports open watches. The events of a watch do not show this: in a cluster
//! where nothing happens, a watch that works again after a failure is as silent as one that does
//! not.

use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Method, Request, Response, Uri};
use tower::{Layer, Service};

use super::keeper::Reports;
use super::problem::{ProblemSource, Resource, WATCHED};

/// Client layer that reports open watches.
#[derive(Clone, Debug)]
pub struct ReportOpened(pub Reports);

impl<S> Layer<S> for ReportOpened {
    type Service = Reporting<S>;

    fn layer(&self, inner: S) -> Reporting<S> {
        Reporting { reports: self.0.clone(), inner }
    }
}

/// A client's service whose open watches are reported.
#[derive(Clone, Debug)]
pub struct Reporting<S> {
    reports: Reports,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Reporting<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let watched = watched(request.method(), request.uri());
        let reports = self.reports.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            // In this layer a refused watch is still a response; kube makes an error of it further
            // out.
            if let (Some(resource), Ok(answer)) = (watched, &answer)
                && answer.status().is_success()
            {
                reports.works(ProblemSource::Watch(resource));
            }
            answer
        })
    }
}

/// Returns the resource that a request watches.
fn watched(method: &Method, uri: &Uri) -> Option<Resource> {
    let query = uri.query().unwrap_or_default();
    if *method != Method::GET || !query.split('&').any(|part| part == "watch=true") {
        return None;
    }
    let last = uri.path().rsplit('/').next()?;
    WATCHED.into_iter().find(|resource| resource.plural == last)
}

#[cfg(test)]
mod tests {
    use super::super::problem::{DEVICE_PLUGINS, PODS};
    use super::super::record::Report;
    use super::*;

    #[tokio::test]
    async fn a_watch_counts_as_working_once_the_api_server_opened_it_and_a_list_does_not() {
        let (reports, mut receiver) = Reports::channel();
        let answer = |request: Request<()>| async move {
            let code = if request.uri().path().ends_with("services") { 403 } else { 200 };
            Ok::<_, ()>(Response::builder().status(code).body(()).unwrap())
        };
        let mut client = ReportOpened(reports).layer(tower::service_fn(answer));
        for path in [
            "/api/v1/pods?limit=500",
            "/api/v1/services?watch=true",
            "/api/v1/namespaces/a/pods?&watch=true&timeoutSeconds=290",
            "/apis/application.flashjob.nbfc.io/v1alpha1/deviceplugins?watch=true",
            "/api/v1/namespaces/a/pods/b/log?watch=true",
        ] {
            client.call(Request::get(path).body(()).unwrap()).await.unwrap();
        }
        drop(client);
        let mut reported = Vec::new();
        while let Some(report) = receiver.recv().await {
            reported.push(report);
        }
        let works = |resource| Report::State(ProblemSource::Watch(resource), Ok(()));
        assert_eq!(reported, [works(PODS), works(DEVICE_PLUGINS)]);
    }
}
