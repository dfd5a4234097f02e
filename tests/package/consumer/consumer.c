/* A program that knows nothing but the installed package. */
#include <stdio.h>
#include <tandem/c.h>

int main(void) {
  tandem_error* error = NULL;
  tandem_model* model = NULL;
  const tandem_code code = tandem_model_open("/nowhere/model.gguf", &model, &error);
  printf("tandem %s: %s: %s\n", tandem_version(), tandem_code_name(code), error->text);
  tandem_error_free(error);
  return code == TANDEM_ERROR_NOT_FOUND ? 0 : 1;
}
