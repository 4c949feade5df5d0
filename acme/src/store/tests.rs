//! What is kept is found again; what is broken is moved aside.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(text: &str) -> Names {
    Names::new(text.split(' ')).unwrap()
}

fn certificate(text: &str) -> Certificate {
    let dns: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let made = rcgen::generate_simple_self_signed(dns).unwrap();
    let pem = made.cert.pem() + &made.signing_key.serialize_pem();
    Certificate::parse(pem.into_bytes(), &names(text)).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_certificate_is_found_again_by_its_names_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&folder.path().join("acme"));
    let kept = certificate("api.test www.test");

    store
        .keep_certificate(&names("www.test api.test"), &kept)
        .unwrap();

    let found = store.certificate(&names("api.test www.test"), now());
    assert_eq!(found, Some(kept));
    assert_eq!(store.certificate(&names("api.test"), now()), None);
}

#[test]
fn nobody_else_can_read_what_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("acme");
    let store = Store::new(&inside);
    store
        .keep_certificate(&names("api.test"), &certificate("api.test"))
        .unwrap();
    store.keep_account("https://ca.test/dir", b"{}").unwrap();

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inside), 0o700);
    for file in files(&inside) {
        assert_eq!(mode(&inside.join(&file)), 0o600, "{file}");
    }
}

#[test]
fn a_newer_certificate_takes_the_place_of_the_old_one_and_leaves_no_litter() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let newer = certificate("api.test");
    fs::write(
        beside(&store.certificate_path(&names("api.test")), "tmp"),
        "left by a crash",
    )
    .unwrap();

    store
        .keep_certificate(&names("api.test"), &certificate("api.test"))
        .unwrap();
    store.keep_certificate(&names("api.test"), &newer).unwrap();

    assert_eq!(store.certificate(&names("api.test"), now()), Some(newer));
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn what_cannot_be_understood_is_moved_aside_and_never_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    let path = store.certificate_path(&names("api.test"));
    let other = certificate("other.test");
    for broken in [
        &b"no certificate"[..],
        other.pem(),
        &[b'x'; PEM_BYTES_MAX + 1],
    ] {
        fs::write(&path, broken).unwrap();

        assert_eq!(store.certificate(&names("api.test"), now()), None);
        assert!(!path.exists());
        let kept = beside(&path, &format!("broken-{}", now().as_millis()));
        assert_eq!(fs::read(kept).unwrap(), broken);
    }
}

#[test]
fn names_cannot_lead_out_of_the_folder() {
    let store = Store::new(Path::new("/state/acme"));
    let odd = Names::new(["../../etc/passwd"]).unwrap();

    let path = store.certificate_path(&odd);

    assert_eq!(path.parent(), Some(Path::new("/state/acme")));
}
