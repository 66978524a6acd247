/* Embeds a vendor's device code, which the build compiled into a file; an empty file where it could not. */
#define STRING_(x) #x
#define STRING(x) STRING_(x)

__asm__(".section .rodata\n"
        ".balign 4096\n"
        ".global " STRING(
            IMAGE_SYMBOL) "\n"
                          ".global " STRING(
                              IMAGE_SYMBOL) "_end\n"
                                            ".hidden " STRING(
                                                IMAGE_SYMBOL) "\n"
                                                              ".hidden " STRING(IMAGE_SYMBOL) "_end\n" STRING(
                                                                  IMAGE_SYMBOL) ":\n"
                                                                                ".incbin \"" IMAGE_FILE "\"\n" STRING(
                                                                                    IMAGE_SYMBOL) "_end:\n"
                                                                                                  ".byte 0\n"
                                                                                                  ".previous\n");
