// Exceptions through several frames, caught and thrown again.
#include <stdexcept>
#include <string>

static volatile int sink;
struct Count {
	~Count() { sink = sink + 1; }
};

__attribute__((noinline)) static void thrower(int n)
{
	Count count;
	if (n == 0)
		throw std::runtime_error("end");
	try {
		thrower(n - 1);
	} catch (const std::logic_error &) {
		sink = 0;
	}
	sink = sink + 2;
}

int main()
{
	for (int i = 0; i < 4; i++)
		try {
			thrower(i);
		} catch (const std::exception &error) {
			sink = sink + std::string(error.what()).size();
		}
	return sink > 0 ? 0 : 1;
}
