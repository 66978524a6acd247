/* Embeds a vendor's device code, which the build compiled into IMAGE_FILE, as the bytes from IMAGE to IMAGE_end. The
 * file is empty where it could not be compiled. */
__asm__(".section .rodata\n"
        ".balign 4096\n"
        ".global " IMAGE ", " IMAGE "_end\n"
        ".hidden " IMAGE ", " IMAGE "_end\n" IMAGE ":\n"
        ".incbin \"" IMAGE_FILE "\"\n" IMAGE "_end:\n"
        ".byte 0\n"
        ".previous\n");
