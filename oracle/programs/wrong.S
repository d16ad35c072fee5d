/* Unwind data that is wrong at one instruction: it says nothing of the push. What is pushed is an address of
 * code, so that it could be a return address. */
	.globl _start
	.type _start, @function
_start:
	.cfi_startproc
	.cfi_undefined rip
	lea wrong(%rip), %rax
	call f
	mov $60, %eax
	xor %edi, %edi
	syscall
	.cfi_endproc
	.size _start, . - _start

	.type f, @function
f:
	.cfi_startproc
	push %rax
	.globl wrong
wrong:
	pop %rax
	ret
	.cfi_endproc
	.size f, . - f
	.section .note.GNU-stack, "", @progbits
