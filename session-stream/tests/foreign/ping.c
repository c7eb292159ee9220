/* A client of a storage node that shares no code with this one: ngtcp2 0.12 for QUIC, GnuTLS 3.7 for raw Ed25519 keys (RFC 7250),
 * GnuTLS' priorities as libquic sets them. It shakes hands, checks that the node proves the key it should, sends `snode_ping`
 * on its first stream and prints what comes back.
 *
 * Usage: ping PORT SERVER-KEY-HEX ALPN [SEED-HEX]     with a seed it has a key to show, without one it has none */
#include <arpa/inet.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PRIORITY "NORMAL:+ECDHE-PSK:+PSK:+ECDHE-ECDSA:+AES-128-CCM-8:+CTYPE-CLI-ALL:+CTYPE-SRV-ALL:+SHA256:%DISABLE_TLS13_COMPAT_MODE"

static const unsigned char SPKI_HEAD[12] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
static const unsigned char PKCS8_HEAD[16] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};
static const char PING[] = "23:l1:Ci0e10:snode_ping0:e";

static ngtcp2_conn *conn;
static unsigned char server_key[32];
static int ready, done;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void unhex(unsigned char out[32], const char *hex) {
  for (int i = 0; i < 32; i++)
    if (sscanf(hex + 2 * i, "%2hhx", &out[i]) != 1) fail(hex, "64 hexadecimal digits wanted");
}

static ngtcp2_tstamp now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (ngtcp2_tstamp)ts.tv_sec * NGTCP2_SECONDS + (ngtcp2_tstamp)ts.tv_nsec;
}

static ngtcp2_conn *get_conn(ngtcp2_crypto_conn_ref *ref) { return (void)ref, conn; }

static void random_bytes(uint8_t *dest, size_t length, const ngtcp2_rand_ctx *ctx) {
  (void)ctx, gnutls_rnd(GNUTLS_RND_RANDOM, dest, length);
}

static int new_cid(ngtcp2_conn *c, ngtcp2_cid *cid, uint8_t *token, size_t length, void *user) {
  (void)c, (void)user;
  random_bytes(cid->data, length, NULL), cid->datalen = length;
  random_bytes(token, NGTCP2_STATELESS_RESET_TOKENLEN, NULL);
  return 0;
}

static int completed(ngtcp2_conn *c, void *user) { return (void)c, (void)user, ready = 1, 0; }

static int stream_data(ngtcp2_conn *c, uint32_t flags, int64_t id, uint64_t offset, const uint8_t *data, size_t length,
                       void *user, void *stream_user) {
  (void)c, (void)flags, (void)id, (void)offset, (void)user, (void)stream_user;
  if (length) fwrite(data, 1, length, stdout), fflush(stdout), done = 1;
  return 0;
}

/* The server must have shown a raw key, and the right one. */
static int verify(gnutls_session_t session) {
  unsigned count = 0;
  const gnutls_datum_t *shown = gnutls_certificate_get_peers(session, &count);
  if (gnutls_certificate_type_get2(session, GNUTLS_CTYPE_SERVER) != GNUTLS_CRT_RAWPK || count != 1) return -1;
  int same = shown->size == 44 && !memcmp(shown->data, SPKI_HEAD, 12) && !memcmp(shown->data + 12, server_key, 32);
  return same ? 0 : -1;
}

static gnutls_certificate_credentials_t credentials(const char *seed_hex) {
  gnutls_certificate_credentials_t cred;
  gnutls_certificate_allocate_credentials(&cred);
  gnutls_certificate_set_verify_function(cred, verify);
  if (!seed_hex) return cred;
  unsigned char pkcs8[48], spki[44];
  memcpy(pkcs8, PKCS8_HEAD, 16), unhex(pkcs8 + 16, seed_hex);
  gnutls_datum_t secret = {pkcs8, sizeof pkcs8}, x = {0}, public = {spki, sizeof spki};
  gnutls_privkey_t key;
  gnutls_ecc_curve_t curve;
  gnutls_privkey_init(&key);
  if (gnutls_privkey_import_x509_raw(key, &secret, GNUTLS_X509_FMT_DER, NULL, 0)) fail("seed", "no key");
  gnutls_privkey_export_ecc_raw2(key, &curve, &x, NULL, NULL, 0);
  memcpy(spki, SPKI_HEAD, 12), memcpy(spki + 12, x.data, 32);
  int e = gnutls_certificate_set_rawpk_key_mem(cred, &public, &secret, GNUTLS_X509_FMT_DER, NULL, 0, NULL, 0, 0);
  if (e) fail("raw key", gnutls_strerror(e));
  return cred;
}

int main(int argc, char **argv) {
  if (argc < 4) fail("usage", "ping PORT SERVER-KEY-HEX ALPN [SEED-HEX]");
  unhex(server_key, argv[2]);

  gnutls_session_t session;
  gnutls_datum_t alpn = {(unsigned char *)argv[3], (unsigned)strlen(argv[3])};
  ngtcp2_crypto_conn_ref ref = {get_conn, NULL};
  gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_ENABLE_EARLY_DATA | GNUTLS_NO_END_OF_EARLY_DATA | GNUTLS_ENABLE_RAWPK);
  if (ngtcp2_crypto_gnutls_configure_client_session(session)) fail("ngtcp2", "cannot configure GnuTLS");
  if (gnutls_priority_set_direct(session, PRIORITY, NULL)) fail("GnuTLS", "does not know these priorities");
  gnutls_session_set_ptr(session, &ref);
  gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials(argc > 4 ? argv[4] : NULL));
  gnutls_alpn_set_protocols(session, &alpn, 1, GNUTLS_ALPN_MANDATORY);
  gnutls_server_name_set(session, GNUTLS_NAME_DNS, "localhost", 9);

  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in remote = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))}, local;
  socklen_t local_length = sizeof local;
  remote.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&remote, sizeof remote)) fail("connect", "no");
  getsockname(fd, (struct sockaddr *)&local, &local_length);
  ngtcp2_path path = {{(struct sockaddr *)&local, local_length}, {(struct sockaddr *)&remote, sizeof remote}, NULL};

  ngtcp2_callbacks callbacks = {
      .client_initial = ngtcp2_crypto_client_initial_cb, .recv_crypto_data = ngtcp2_crypto_recv_crypto_data_cb,
      .encrypt = ngtcp2_crypto_encrypt_cb, .decrypt = ngtcp2_crypto_decrypt_cb, .hp_mask = ngtcp2_crypto_hp_mask_cb,
      .recv_retry = ngtcp2_crypto_recv_retry_cb, .update_key = ngtcp2_crypto_update_key_cb,
      .delete_crypto_aead_ctx = ngtcp2_crypto_delete_crypto_aead_ctx_cb,
      .delete_crypto_cipher_ctx = ngtcp2_crypto_delete_crypto_cipher_ctx_cb,
      .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,
      .version_negotiation = ngtcp2_crypto_version_negotiation_cb,
      .rand = random_bytes, .get_new_connection_id = new_cid, .handshake_completed = completed,
      .recv_stream_data = stream_data,
  };
  ngtcp2_settings settings;
  ngtcp2_transport_params params;
  ngtcp2_settings_default(&settings), ngtcp2_transport_params_default(&params);
  settings.initial_ts = now();
  params.initial_max_data = 15 << 20, params.initial_max_streams_bidi = 32, params.active_connection_id_limit = 8;
  params.initial_max_stream_data_bidi_local = params.initial_max_stream_data_bidi_remote = 6 << 20;
  params.max_idle_timeout = 30 * NGTCP2_SECONDS;
  ngtcp2_cid dcid = {.datalen = 18}, scid = {.datalen = 18};
  random_bytes(dcid.data, 18, NULL), random_bytes(scid.data, 18, NULL);
  if (ngtcp2_conn_client_new(&conn, &dcid, &scid, &path, NGTCP2_PROTO_VER_V1, &callbacks, &settings, &params, NULL, NULL))
    fail("ngtcp2", "no connection");
  ngtcp2_conn_set_tls_native_handle(conn, session);

  int64_t stream = -1;
  size_t sent = 0;
  ngtcp2_tstamp deadline = now() + 10 * NGTCP2_SECONDS;
  while (!done) {
    uint8_t packet[1452];
    if (now() > deadline) fail("timeout", ready ? "no answer" : "no handshake");
    if (ready && stream < 0 && ngtcp2_conn_open_bidi_stream(conn, &stream, NULL)) stream = -1;
    for (;;) {
      ngtcp2_vec vec = {(uint8_t *)PING + sent, sizeof PING - 1 - sent};
      ngtcp2_ssize taken = -1;
      int more = stream >= 0 && vec.len > 0;
      ngtcp2_ssize n = ngtcp2_conn_writev_stream(conn, NULL, NULL, packet, sizeof packet, &taken, 0, more ? stream : -1,
                                                 more ? &vec : NULL, more ? 1 : 0, now());
      if (n < 0) fail("write", ngtcp2_strerror((int)n));
      if (taken > 0) sent += (size_t)taken;
      if (n == 0) break;
      send(fd, packet, (size_t)n, 0);
    }
    struct pollfd waiting = {fd, POLLIN, 0};
    if (poll(&waiting, 1, 20) > 0) {
      ssize_t n = recv(fd, packet, sizeof packet, 0);
      int e = n > 0 ? ngtcp2_conn_read_pkt(conn, &path, NULL, packet, (size_t)n, now()) : 0;
      if (e) fail(ngtcp2_strerror(e), gnutls_alert_get_name(ngtcp2_conn_get_tls_alert(conn)));
    }
    if (ngtcp2_conn_get_expiry(conn) <= now() && ngtcp2_conn_handle_expiry(conn, now())) fail("expiry", "connection lost");
  }
  return 0;
}
