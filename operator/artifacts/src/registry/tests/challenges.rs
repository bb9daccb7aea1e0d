//! Challenges of registries, and their token services: which credentials go where.

use super::*;

#[tokio::test]
async fn a_token_service_that_refuses_the_password_ends_the_pull() {
    let fake = Fake::start(|host, path, authorization| match path {
        path if path.starts_with("/token") => answer(401, ""),
        _ if authorization.is_some() => answer(200, manifest(b"component", 9)),
        _ => bearer(format!("http://{host}/token")),
    })
    .await;
    let error = pull(&fake, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    assert_eq!(
        fake.asked().len(),
        2,
        "nothing is asked again without the password: {:?}",
        fake.asked()
    );
}

#[tokio::test]
async fn both_names_of_a_token_are_read_and_a_missing_scope_is_filled_in() {
    for token in
        [r#"{"token": "t"}"#, r#"{"access_token": "t"}"#, r#"{"token": "", "access_token": "t"}"#]
    {
        let fake = Fake::start(move |host, path, authorization| match (path, authorization) {
            (path, _) if path.starts_with("/token") => answer(200, token),
            (path, Some("Bearer t")) if path.contains("/blobs/") => answer(200, "component"),
            (_, Some("Bearer t")) => answer(200, manifest(b"component", 9)),
            _ => bearer(format!("http://{host}/token")),
        })
        .await;
        assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
        let (path, authorization) = fake
            .asked()
            .into_iter()
            .find(|(path, _)| path.starts_with("/token"))
            .expect("a token was asked for");
        assert!(path.contains("scope=repository%3Aa%2Fb%3Apull"), "{path}");
        assert_eq!(authorization.as_deref(), Some("Basic cm9ib3Q6c2VjcmV0"));
    }
}

#[tokio::test]
async fn the_password_goes_to_no_other_host_and_not_in_the_clear() {
    let other = Fake::start(|_, _, _| answer(200, r#"{"token": "t"}"#)).await;
    let realm = format!("http://{}/token", other.host);
    let fake = Fake::start(move |_, _, _| bearer(realm.clone())).await;
    let error = pull(&fake, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
    let mut config = fake.config();
    config.token_hosts = vec![other.host.clone()];
    let error = pull_with(config, Some(&credentials())).await.expect_err("refused");
    assert!(matches!(error, RegistryError::InsecureRealm { .. }), "{error}");
    assert!(other.asked().is_empty());
}

#[tokio::test]
async fn an_identity_token_is_exchanged_and_never_sent_as_a_password() {
    let fake = Fake::start(|host, path, authorization| match (path, authorization) {
        ("/token", None) => answer(200, r#"{"access_token": "t"}"#),
        (path, Some("Bearer t")) if path.contains("/blobs/") => answer(200, "component"),
        (_, Some("Bearer t")) => answer(200, manifest(b"component", 9)),
        _ => bearer(format!("http://{host}/token")),
    })
    .await;
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "secret".into() };
    assert_eq!(pull(&fake, Some(&token)).await.expect("pulled"), b"component");
    let basic =
        Fake::start(|_, _, _| with(answer(401, ""), "www-authenticate", "Basic realm=x")).await;
    let error = pull(&basic, Some(&token)).await.expect_err("refused");
    assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    assert!(basic.asked().iter().all(|(_, authorization)| authorization.is_none()));
}

#[tokio::test]
async fn of_several_challenges_in_one_header_the_one_that_can_be_met_is_taken() {
    let fake = Fake::start(|_, path, authorization| match authorization {
        None => with(answer(401, ""), "www-authenticate", r#"Negotiate, Basic realm="a, b""#),
        Some(_) if path.contains("/blobs/") => answer(200, "component"),
        Some(_) => answer(200, manifest(b"component", 9)),
    })
    .await;
    assert_eq!(pull(&fake, Some(&credentials())).await.expect("pulled"), b"component");
}

/// A registry that offers these challenges, with `HOST` for its own name, and lets in whoever has
/// a token of its own token service or the password.
async fn with_challenges(challenges: String) -> Fake {
    Fake::start(move |host, path, authorization| match (path, authorization) {
        (path, _) if path.starts_with("/token") => answer(200, r#"{"token": "t"}"#),
        (path, Some("Bearer t" | "Basic cm9ib3Q6c2VjcmV0")) if path.contains("/blobs/") => {
            answer(200, "component")
        }
        (_, Some("Bearer t" | "Basic cm9ib3Q6c2VjcmV0")) => answer(200, manifest(b"component", 9)),
        _ => with(answer(401, ""), "www-authenticate", challenges.replace("HOST", host)),
    })
    .await
}

#[tokio::test]
async fn of_several_challenges_the_first_that_these_credentials_can_meet_is_taken() {
    let password = credentials();
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "id".into() };
    let (bearer, foreign) =
        (r#"Bearer realm="http://HOST/token""#, r#"Bearer realm="https://elsewhere.example/t""#);
    for (challenges, login, begins) in [
        (format!("{foreign}, Basic realm=x"), Some(&password), "Basic cm9i"),
        (format!("{foreign}, {bearer}"), None, "Bearer"),
        (format!("Basic realm=x, {bearer}"), Some(&token), "Bearer"),
        (format!("Basic realm=x, {bearer}"), None, "Bearer"),
        (format!("Basic realm=x, {bearer}"), Some(&password), "Basic cm9i"),
    ] {
        let fake = with_challenges(challenges.clone()).await;
        assert_eq!(pull(&fake, login).await.expect(&challenges), b"component", "{challenges}");
        let (_, last) = fake.asked().pop().expect("a request");
        assert!(last.is_some_and(|value| value.starts_with(begins)), "{challenges}");
    }
}

#[tokio::test]
async fn a_challenge_that_nobody_can_meet_is_refused_by_its_realm_or_by_the_credentials() {
    let token = Credentials { username: crate::IDENTITY_TOKEN.into(), password: "id".into() };
    let foreign = r#"Basic realm=x, Bearer realm="https://elsewhere.example/t""#;
    for login in [None, Some(&token)] {
        let fake = with_challenges(foreign.to_owned()).await;
        let error = pull(&fake, login).await.expect_err("refused");
        assert!(matches!(error, RegistryError::ForeignRealm { .. }), "{error}");
        let fake = with_challenges("Negotiate, Basic realm=x".to_owned()).await;
        let error = pull(&fake, login).await.expect_err("refused");
        assert!(matches!(error, RegistryError::Access { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_token_host_may_have_the_default_port_and_upper_case_letters() {
    let realm = "http://tokens.example/token".to_owned();
    for (listed, is_listed) in [
        ("tokens.example:443", true),
        ("TOKENS.example", true),
        ("tokens.example:8443", false),
        ("other.example:443", false),
    ] {
        let realm = realm.clone();
        let fake = Fake::start(move |_, _, _| bearer(realm.clone())).await;
        let config = RegistryConfig { token_hosts: vec![listed.to_owned()], ..fake.config() };
        let error = pull_with(config, Some(&credentials())).await.expect_err("refused");
        // A listed host is refused for its missing encryption, before anything is sent there.
        let refused_as_insecure = matches!(error, RegistryError::InsecureRealm { .. });
        assert_eq!(refused_as_insecure, is_listed, "{listed}: {error}");
    }
}
