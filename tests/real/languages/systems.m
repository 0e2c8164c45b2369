% Linear systems, eigenvalues, an integrator, cells and structures, a child process.
args = argv();
rounds = str2double(args{end});
rand("twister", 5); randn("twister", 6);
history = struct("step", {}, "sum", {});
page_screen_output(false);
for step = 1:rounds
  a = randn(120) + 120 * eye(120);
  x = a \ ones(120, 1);
  e = sort(abs(eig(a(1:60, 1:60))));
  [t, y] = ode45(@(t, y) [y(2); -y(1) - 0.1 * y(2)], [0 5], [step; 0]);
  history(end + 1) = struct("step", step, "sum", sum(x));
  words = strsplit(sprintf("%d,", 1:step), ",");
  [status, said] = system(sprintf("echo child %d; exit %d", step, mod(step, 4)));
  printf("%d %.9g %.9g %.6g %d %s", step, sum(x), e(end), y(end, 1), status, said);
  fflush(stdout);
  pause(0.05);
end
printf("%.9g\n", sum([history.sum]));
