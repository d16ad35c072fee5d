/* libcrypto's assembly: ciphers, digests, and arithmetic of large numbers. usage: crypto ROUNDS
 * All of it in a thread: finding the library's symbols would take longer than what is done with them. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static volatile int sink;
static unsigned char in[1024], out[2048], key[64], start[16];

#define FUNCTION(result, name, ...) static result (*name)(__VA_ARGS__);
#define FUNCTIONS \
	FUNCTION(void *, EVP_CIPHER_CTX_new, void) \
	FUNCTION(void, EVP_CIPHER_CTX_free, void *) \
	FUNCTION(const void *, EVP_get_cipherbyname, const char *) \
	FUNCTION(const void *, EVP_get_digestbyname, const char *) \
	FUNCTION(int, EVP_CipherInit_ex, void *, const void *, void *, const void *, const void *, int) \
	FUNCTION(int, EVP_CipherUpdate, void *, unsigned char *, int *, const void *, int) \
	FUNCTION(void *, EVP_MD_CTX_new, void) \
	FUNCTION(void, EVP_MD_CTX_free, void *) \
	FUNCTION(int, EVP_DigestInit_ex, void *, const void *, void *) \
	FUNCTION(int, EVP_DigestUpdate, void *, const void *, size_t) \
	FUNCTION(int, EVP_DigestFinal_ex, void *, void *, unsigned *) \
	FUNCTION(void *, BN_new, void) \
	FUNCTION(void *, BN_CTX_new, void) \
	FUNCTION(void *, BN_bin2bn, const void *, int, void *) \
	FUNCTION(int, BN_mod_exp, void *, const void *, const void *, const void *, void *) \
	FUNCTION(void *, EC_GROUP_new_by_curve_name, int) \
	FUNCTION(void *, EC_POINT_new, const void *) \
	FUNCTION(int, EC_POINT_mul, const void *, void *, const void *, const void *, const void *, void *)
FUNCTIONS
#undef FUNCTION

__attribute__((noinline)) static void ciphers(void)
{
	static const char *const names[] = {
		"aes-128-cbc", "aes-256-ctr", "aes-128-gcm", "aes-128-ecb", "aes-128-ccm",  "aes-128-xts",
		"aes-128-ocb", "chacha20",    "chacha20-poly1305", "camellia-128-cbc", "des-ede3-cbc",
	};
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const void *cipher = EVP_get_cipherbyname(names[i]);
		for (int encrypt = 0; cipher && encrypt < 2; encrypt++) {
			void *context = EVP_CIPHER_CTX_new();
			int length = 0;
			EVP_CipherInit_ex(context, cipher, NULL, key, start, encrypt);
			for (int size = 16; size <= 160; size += 144)
				EVP_CipherUpdate(context, out, &length, in, size);
			sink += length;
			EVP_CIPHER_CTX_free(context);
		}
	}
}

__attribute__((noinline)) static void digests(void)
{
	static const char *const names[] = {"md5", "sha1", "sha256", "sha512", "sha3-256", "ripemd160", "blake2s256", "whirlpool"};
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const void *digest = EVP_get_digestbyname(names[i]);
		void *context = EVP_MD_CTX_new();
		unsigned length = 0;
		if (digest && EVP_DigestInit_ex(context, digest, NULL)) {
			EVP_DigestUpdate(context, in, 70);
			EVP_DigestFinal_ex(context, out, &length);
		}
		sink += length;
		EVP_MD_CTX_free(context);
	}
}

/* Montgomery multiplication of several widths, and two curves with code of their own. */
__attribute__((noinline)) static void numbers(int round)
{
	static void *context, *result, *base, *power, *modulus;
	if (!context) {
		context = BN_CTX_new();
		result = BN_new();
	}
	int width = 32 << round % 3;
	in[width - 1] = 0x81;
	in[0] = 0xc5;
	base = BN_bin2bn(key, 40, base);
	power = BN_bin2bn(start, 3, power);
	modulus = BN_bin2bn(in, width, modulus);
	sink += BN_mod_exp(result, base, power, modulus, context);
	/* NID_X9_62_prime256v1, NID_secp384r1 */
	void *group = EC_GROUP_new_by_curve_name(round % 4 == 3 ? 715 : 415);
	if (group) {
		power = BN_bin2bn(key, 4, power);
		sink += EC_POINT_mul(group, EC_POINT_new(group), power, NULL, NULL, context);
	}
}

__attribute__((noinline)) static void done(void)
{
	sink++;
}

static void *work(void *rounds)
{
	for (long n = 0; n < *(long *)rounds; n++) {
		digests();
		ciphers();
		numbers(n);
		done();
	}
	return 0;
}

int main(int count, char **words)
{
	void *library = dlopen("libcrypto.so.3", RTLD_NOW);
	long rounds = count > 1 ? atol(words[1]) : 0;
	pthread_t thread;

	if (!library)
		return 3;
#define FUNCTION(result, name, ...) \
	if (!(*(void **)&name = dlsym(library, #name))) \
		return 4;
	FUNCTIONS
	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = i * 31 + 7;
	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = i * 17 + 5;
	for (unsigned i = 0; i < sizeof(start); i++)
		start[i] = i + 3;
	/* What is read and set up once. */
	ciphers();
	digests();
	numbers(0);
	if (pthread_create(&thread, NULL, work, &rounds))
		return 5;
	pthread_join(thread, NULL);
	return 0;
}
