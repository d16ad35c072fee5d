/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * framewalk: say which SFrame sections describe this process's code (docs/abi.md).
 *
 * No allocation, no locks, no libc, errno untouched: usable before main, in constructors, in signal handlers
 * and inside a dynamic loader.
 *
 * Printed by `./run header` from the Rust tables. Do not edit.
 */
#ifndef FRAMEWALK_H
#define FRAMEWALK_H

#include <stddef.h>
#include <stdint.h>

/* The system calls themselves, for those who would rather make them:
 * prctl(FRAMEWALK_PR_REGISTER, key, address, length, flags) and
 * prctl(FRAMEWALK_PR_UNREGISTER, key, 0, 0, 0). */
#define FRAMEWALK_PR_REGISTER 0x53464701
#define FRAMEWALK_PR_UNREGISTER 0x53464702

/* Flag: the section takes the place of everything that the key holds, at once. */
#define FRAMEWALK_REPLACE 0x100u

/* Sections that a process may have registered at one time. */
#define FRAMEWALK_MAX_SECTIONS 4096

enum framewalk_refusal {
	FRAMEWALK_UNKNOWN_KEY = 2, /* ENOENT: nothing is registered under this key */
	FRAMEWALK_UNREADABLE = 14, /* EFAULT: the section cannot be read */
	FRAMEWALK_OVERLAP = 17, /* EEXIST: its text overlaps that of a registered section */
	FRAMEWALK_ARGUMENTS = 22, /* EINVAL: bad kind, flags or address range */
	FRAMEWALK_QUOTA = 28, /* ENOSPC: no room for another section */
	FRAMEWALK_MALFORMED = 74, /* EBADMSG: the header is malformed */
	FRAMEWALK_UNSUPPORTED = 93, /* EPROTONOSUPPORT: this version or machine is not supported */
};

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Both functions answer
 *   > 0   accepted: an id, or how many sections were removed
 *     0   nobody answered: nobody walks stacks here, or a filter of system calls is in the way. It may have been
 *         heard all the same, by one who can only listen: unregister as if it had been accepted.
 *   < 0   refused, and nothing has changed: the negative of a framewalk_refusal, which is an errno
 * A program is right whatever they answer; only its stacks in profiles are better for it.
 */

/*
 * Registers the SFrame section (version 2 or 3) of `length` bytes at `section`, under a key of the caller's choice.
 * Several sections may be registered under one key. `flags` are 0 or FRAMEWALK_REPLACE.
 *
 * Memory that cannot be read is refused like a section that is none. But during the call nobody may unmap the
 * section or write into its header.
 */
int64_t framewalk_register(uint64_t key, const void *section, size_t length, unsigned flags);

/* Unregisters everything that the key holds. To be called before the code or its section goes away. */
int64_t framewalk_unregister(uint64_t key);

#ifdef __cplusplus
}
#endif

#endif
